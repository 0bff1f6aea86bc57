"""The shipped drivers: one module or folder per device family."""
