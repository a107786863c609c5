"""The network as one program: raw features in, calibrated probability out."""
