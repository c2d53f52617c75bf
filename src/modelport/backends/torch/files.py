"""torch's own files."""

from __future__ import annotations

from modelport.core.backend import FileFormat

FORMATS: tuple[FileFormat, ...] = ()
