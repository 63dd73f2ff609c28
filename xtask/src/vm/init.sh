#!/bin/sh
# The first process of a guest: prepares the machine, runs what `VM_EXPECT` (from the kernel's
# command line) asks for, tells the result, and ends QEMU with it.
export PATH=/bin HOME=/tmp RUST_BACKTRACE=1 LIMITERD_BIN=/payload/limiterd

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /run/netns

failed=0
# A line for each, which says how it went.
check() {
    name=$1
    shift
    if "$@"; then
        echo "VMCHECK ok $name"
    else
        echo "VMCHECK FAILED $name"
        failed=1
    fi
}

# The tests' `ip` is iproute2's, and so is this one.
prepare() {
    for module in /modules/*.ko; do
        insmod "$module" || return 1
    done
    /bin/ip link set lo up
}

# xtask counts the tests behind each VMSUITE.
suites() {
    while read -r suite arguments; do
        echo "VMSUITE $suite"
        # shellcheck disable=SC2086 # words, by design
        check "$suite" "/payload/$suite" $arguments </dev/null
    done </payload/suites
}

# Ends by itself, with status 1, and says why.
refused() {
    timeout 30 /payload/limiterd run --config /payload/policy >/tmp/refusal 2>&1
    status=$?
    cat /tmp/refusal
    [ "$status" = 1 ] || { echo "exit status $status, not 1"; return 1; }
    running=$(uname -r)
    grep -q "Linux ${running%%.0-*} is too old" /tmp/refusal && grep -q "need 5.15 or later" /tmp/refusal
}

# `limiterd probe` says the same of the kernel.
told_before() {
    /payload/limiterd probe >/tmp/probe 2>&1
    status=$?
    cat /tmp/probe
    [ "$status" = 1 ] || { echo "exit status $status, not 1"; return 1; }
    grep -q "^MISSING *kernel" /tmp/probe && grep -q "need 5.15 or later" /tmp/probe
}

uname -r
check modules prepare
case $VM_EXPECT in
works)
    check features /payload/guest features
    suites
    ;;
refusal)
    check refusal refused
    check probe told_before
    ;;
*)
    check "a word other than '$VM_EXPECT'" false
    ;;
esac
echo "VMRESULT $failed"
/payload/guest exit "$failed"
