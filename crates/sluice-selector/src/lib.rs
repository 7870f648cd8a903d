//! Calico selectors and Kubernetes label selectors.
