# Process 1 of the node's namespaces: gives them mounts, addresses and routes of their own, says
# "ready" and waits to be killed. Nothing done here is seen outside of the namespaces.
#   $1 the node's address  $2 the Services' network  $3... more directories to hide
set -eu
address=$1 services=$2; shift 2
mount --make-rprivate /
# Sockets of containerd's shims, pods' logs and the like would stay on the machine.
for directory in /run /var/log "$@"; do
  mount -t tmpfs node "$directory"
done
# Pods' volumes are mounts that have to reach their containers.
mount --make-rshared /
ip link set lo up
# A bridge without ports carries the node's address. No default route: nothing leaves the machine.
ip link add node0 type bridge
ip address add "$address/24" dev node0
ip link set node0 up
# The API server and kubelet reach Services too; kube-proxy takes it from there.
ip route add "$services" dev node0
sysctl --quiet --write net.ipv4.ip_forward=1
echo ready
# A shell, for it also reaps orphans.
sleep infinity &
wait
