"""Reports as pictures: the one room that draws. matplotlib is imported when a picture is asked for."""
