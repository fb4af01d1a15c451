"""The chart helm/nocturne: rendered by Helm, read as what Kubernetes would be given."""
