"""Which programs XLA is asked for, as jax itself reports it."""

import contextlib
import logging


@contextlib.contextmanager
def compiled_programs():
    """The names of all programs that are compiled meanwhile, small ones included."""
    names = []
    logger = logging.getLogger("jax._src.interpreters.pxla")
    handler = logging.Handler()

    def emit(record):
        if str(record.msg).startswith("Compiling"):
            names.append(str(record.args[0]))

    handler.emit = emit
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield names
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates
