"""The suite that a backend passes to be called one.

    pytest --pyargs modelport.testing --backend=NAME

`NAME` is a registered backend, or `package.module:OBJECT` for one that is not registered yet; without `--backend` the
suite runs on every registered backend, and one whose framework is not installed is an error. The suite is the
behaviour that the `Backend` protocol promises (`test_backend_contract`), training where it is a `Trainer`
(`test_trainer_contract`), and the 2,024 cases of the ONNX backend test data (`test_onnx_cases`), of which a table is
printed.
"""
