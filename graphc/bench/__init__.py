"""How fast is it? The same network on the same input in graphc and in other runtimes, taking turns on this machine.

Every runtime has a process of its own, so that no library's threads or settings disturb another's, and all but the one
that is being timed are stopped. Nothing is imported here: a worker loads no more than its runtime needs.
"""
