#!/bin/sh
# A client beyond a veth: 10.9.0.2 is anybody, 10.9.0.66 is on the deny list, 10.9.0.77 gets blocked.
set -e
ip netns add client
ip link add edge0 type veth peer name out0 netns client
ip address add 10.9.0.1/24 dev edge0
ip link set edge0 up
ip -n client link set lo up
ip -n client link set out0 up
for host in 2 66 77; do
    ip -n client address add 10.9.0.$host/24 dev out0
done
