"""Pure decisions: hops, context, budget, judging, the overload ladder. Functions of values; no I/O."""
