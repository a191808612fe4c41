"""The calculator's schema, for the two programs beside this one."""
import os

import capnp

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
Calculator = capnp.load(os.path.join(ROOT, "schema", "calculator.capnp")).Calculator
