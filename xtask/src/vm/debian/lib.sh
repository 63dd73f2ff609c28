# What stories have in common; sourced by them.
payload=/opt/vm
state=$payload/state
policy=/etc/limiterd
mkdir -p $state

failed=$(cat $state/failed 2>/dev/null || echo 0)
# A line for each, which says how it went; with what is known of it if it went wrong.
check() {
    name=$1
    shift
    if "$@" >/tmp/check 2>&1; then
        echo "VMCHECK ok $name"
    else
        echo "VMCHECK FAILED $name"
        cat /tmp/check
        journalctl --no-pager --output cat --lines 30 --unit limiterd.service
        failed=1
    fi
    echo $failed >$state/failed
}

# Within a minute.
eventually() {
    for _ in $(seq 120); do
        "$@" && return 0
        sleep 0.5
    done
    "$@"
}

active() { [ "$(systemctl is-active limiterd.service)" = active ]; }
ready() { active && curl --silent --fail --max-time 5 http://127.0.0.1:9901/ready >/dev/null; }
main_pid() { systemctl show --property MainPID --value limiterd.service; }

install_package() { DEBIAN_FRONTEND=noninteractive dpkg --install "$@"; }
is_version() { [ "$(dpkg-query --show --showformat '${Version}' limiterd)" = "$1" ]; }

# Tells how it went, and switches the machine off.
the_end() {
    echo "VMRESULT $failed"
    sync
    systemctl poweroff
}
