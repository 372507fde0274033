"""What reads bytes of strangers, and what must hold of it whatever they are: docs/decisions/fuzzing.md."""
