"""The Kubernetes API from the client's side: client, informer, selectors, quantities. See
README.md."""
