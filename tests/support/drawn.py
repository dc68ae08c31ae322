"""How many examples a drawn test takes: a share in an ordinary run, all in a long one. The profiles of
``tests/conftest.py`` say which."""

from hypothesis import settings


def share(examples, least=5):
    """So many in a hundred as the profile of this run says, ``settings.default.max_examples``: all in a long run."""
    return max(examples * settings.default.max_examples // 100, min(least, examples))


def drawn(examples, **how):
    """The settings of a test of so many drawn examples, of which an ordinary run takes a share."""
    return settings(max_examples=share(examples), **how)
