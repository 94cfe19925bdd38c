"""Seeds x hyper-parameters: points, their training, their report."""
