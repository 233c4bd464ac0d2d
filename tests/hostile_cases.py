"""Every hostile file of the tests, by name."""

import hostile_bodies
import hostile_bytes
import hostile_graphs
import hostile_names
import hostile_ops
import hostile_tensors
from hostile import Case

FAMILIES = (hostile_bytes, hostile_tensors, hostile_ops, hostile_graphs, hostile_bodies, hostile_names)
CASES: dict[str, Case] = {name: case for family in FAMILIES for name, case in family.CASES.items()}
assert len(CASES) == sum(len(family.CASES) for family in FAMILIES)
