# Process 1 of the nodes' namespaces: gives them mounts, addresses and routes of their own, says
# "ready" and waits to be killed. Nothing done here is seen outside of the namespaces.
#   $1 the nodes' addresses  $2 the Services' network  $3 a directory for kubelets
set -eu
addresses=$1 services=$2 kubelets=$3
mount --make-rprivate /
# Sockets of containerd's shims, pods' logs and the like would stay on the machine.
for directory in /run /var/log; do
  mount -t tmpfs node "$directory"
done
# What is written to /var/lib whatever the settings say goes to memory.
mkdir /run/changed /run/work
mount -t overlay -o lowerdir=/var/lib,upperdir=/run/changed,workdir=/run/work node /var/lib
# Sockets' paths may not be longer than 107 characters, so kubelets get a short one.
mkdir -p /var/lib/kubelet
mount --bind "$kubelets" /var/lib/kubelet
# Pods' volumes are mounts that have to reach their containers.
mount --make-rshared /
ip link set lo up
# A bridge without ports carries the addresses. No default route: nothing leaves the machine.
ip link add node0 type bridge
for address in $addresses; do ip address add "$address/24" dev node0; done
ip link set node0 up
# The API server and kubelet reach Services too; kube-proxy takes it from there.
ip route add "$services" dev node0
sysctl --quiet --write net.ipv4.ip_forward=1
echo ready
# A shell, for it also reaps orphans.
sleep infinity &
wait
