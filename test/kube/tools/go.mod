module github.com/runnerward/runnerward/test/kube/tools

go 1.26.0
