"""The BGP daemon of a node: sessions by os-ken's speaker, learned routes in the kernel. See
README.md."""
