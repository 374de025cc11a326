"""A BGP daemon of a node: sessions on os-ken's speaker, learned routes in the kernel. See README.md."""
