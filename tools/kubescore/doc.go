// Package kubescore holds only tests: they have kube-score judge what
// deployments/kubernetes renders to. It is a module of its own, because kube-score
// needs types of Kubernetes that the current versions of its libraries no longer have.
package kubescore
