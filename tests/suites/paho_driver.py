"""Runs a client test of Eclipse Paho: `paho_driver SCRIPT HOST PORT`, without its own options.

The scripts hand their options on to unittest, which takes `-h` for a question.
"""

import functools
import runpy
import sys
import unittest

script, host, port = sys.argv[1:]
sys.argv = [script, "--hostname", host, "--port", port]
unittest.main = functools.partial(  # type: ignore[assignment]
    unittest.main, module="__main__", argv=[script]
)
sys.path.insert(0, ".")
runpy.run_path(script, run_name="__main__")
