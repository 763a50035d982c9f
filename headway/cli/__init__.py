"""The command line: one module per noun or verb, loaded when it is called."""
