#!/bin/sh
# A network of three: this machine (eth0, 10.9.0.1), a client (10.9.0.2) and an attacker (10.9.0.66).
set -e
ip netns add wire
ip -n wire link add bridge type bridge
ip -n wire link set bridge up
join() {
    ip link add "$2" type veth peer name "to-$1"
    ip link set "to-$1" netns wire
    ip -n wire link set "to-$1" master bridge
    ip -n wire link set "to-$1" up
}
join here eth0
ip address add 10.9.0.1/24 dev eth0
ip link set eth0 up
for who in client:2 attacker:66; do
    name=${who%:*}
    ip netns add "$name"
    join "$name" out0
    ip link set out0 netns "$name"
    # udev makes a hardware address of a name, and both have the same: the bridge would mix them up.
    ip -n "$name" link set out0 address "02:00:00:00:00:${who#*:}"
    ip -n "$name" link set lo up
    ip -n "$name" address add "10.9.0.${who#*:}/24" dev out0
    ip -n "$name" link set out0 up
done
