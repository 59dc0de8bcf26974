"""How many examples hypothesis draws: the same in each run; --hypothesis-profile=soak looks for new ones."""

from hypothesis import settings

settings.register_profile("fixed", deadline=None, derandomize=True, database=None, max_examples=50)
settings.register_profile("soak", deadline=None, max_examples=3000, print_blob=True)
settings.load_profile("fixed")
