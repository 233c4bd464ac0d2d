"""Settings that hold for every test.

Property tests run under one of two hypothesis profiles, chosen by the environment variable HYPOTHESIS_PROFILE:
`ci` (the default) tries the same few examples in every run, `deep` searches for new ones for as long as that takes.
"""

import os

from hypothesis import HealthCheck, settings

# No deadlines and no too_slow: CI machines are shared, and how fast a test ran says nothing about the code there.
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "deep", deadline=None, max_examples=5000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
os.environ["GRAPHC_CACHE"] = "off"  # tests compile what they test, and leave the user's folder alone
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
