"""What CNI plugins of ours share: the contract's side of the program (SPEC.md), and how it becomes one file."""
