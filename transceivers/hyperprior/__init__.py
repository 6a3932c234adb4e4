"""The compression paper's source code: a learned image codec with a scale hyper-prior and real bit streams."""
