"""The model as one program, from raw features to a calibrated probability."""
