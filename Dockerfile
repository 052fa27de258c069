# The images of the daemon and of the agent, from static binaries in bin/:
#
#   CGO_ENABLED=0 make build VERSION=v0.1.0
#   docker build --target runnerward -t REGISTRY/runnerward:v0.1.0 .
#   docker build --target runnerward-agent -t REGISTRY/runnerward-agent:v0.1.0 .
#
# The base brings certificate authorities and nothing to log in to. Pin it by
# digest; BASE=scratch does where every authority comes with the configuration.
ARG BASE=gcr.io/distroless/static-debian12:nonroot

FROM ${BASE} AS runnerward
COPY bin/runnerward /usr/local/bin/runnerward
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/runnerward"]

# Its init container copies it into the runner's pod: the runner image stays as
# it is.
FROM ${BASE} AS runnerward-agent
COPY bin/runnerward-agent /runnerward-agent
USER 65532:65532
ENTRYPOINT ["/runnerward-agent"]
