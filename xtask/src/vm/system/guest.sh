#!/bin/sh
# What happens to a machine that limiterd is installed on, told to the console line by line. Run by
# systemd, once for each boot.
. /opt/vm/lib.sh
gateway=http://10.9.0.1:8080/

property() { systemctl show --property "$1" --value limiterd.service; }

# The status that a request from 10.9.0.$1 gets; 000: none at all.
status_for() {
    from=$1
    shift
    ip netns exec client curl --silent --output /dev/null --write-out '%{http_code}' \
        --interface "10.9.0.$from" --max-time 60 "$@" $gateway
}
passes() { [ "$(status_for 2)" = 200 ]; }
refused() { [ "$(status_for "$1" --connect-timeout 1)" = 000 ]; }
attached() { ip link show edge0 | grep -q 'prog/xdp'; }
detached() { ! attached; }

# Requests one after the other from somebody who may, and attempts of somebody who may not, until
# they are told to end.
load_begins() {
    rm -f $state/load $state/denied $state/end
    (while [ ! -e $state/end ]; do status_for 2; echo; done >$state/load) &
    load=$!
    (while [ ! -e $state/end ]; do status_for 66 --connect-timeout 0.3; echo; done >$state/denied) &
    denied=$!
    eventually test -s $state/load
}
# Every one of the first is answered with 200, but for $1 that may have been under way in a process that
# was killed, and none of the others at all.
load_was_good() {
    touch $state/end
    wait $load $denied
    echo "VMLOAD $(wc -l <$state/load) requests, $(wc -l <$state/denied) denied"
    sort $state/load | uniq -c
    sort $state/denied | uniq -c
    [ "$(grep -cvx 200 $state/load)" -le "$1" ] && grep -q 200 $state/load &&
        grep -q 000 $state/denied && ! grep -qvx 000 $state/denied
}

# As the unit says, and not as root.
confined() {
    pid=$(main_pid)
    [ "$(stat --format %U /proc/"$pid")" = limiterd ] || return 1
    grep -q '^NoNewPrivs:[[:space:]]*1' /proc/"$pid"/status || return 1
    grep -q '^Seccomp:[[:space:]]*2' /proc/"$pid"/status || return 1
    # CAP_NET_BIND_SERVICE (10), CAP_NET_ADMIN (12), CAP_PERFMON (38), CAP_BPF (39), and no other.
    allowed=$((1 << 10 | 1 << 12 | 1 << 38 | 1 << 39))
    for set in CapPrm CapEff CapBnd; do
        has=$(sed -n "s/^$set:[[:space:]]*/0x/p" /proc/"$pid"/status)
        [ $(($has & ~allowed)) = 0 ] || { echo "$set is $has"; return 1; }
    done
}

own_policy() {
    cp $payload/policy/*.yaml $policy/ && limiterd check $policy && systemctl restart limiterd.service
}

bad_reload() {
    echo 'kind: Nonsense' >$policy/bad.yaml
    systemctl reload limiterd.service && return 1
    rm $policy/bad.yaml
    # It reloads by itself when files change, and is `reloading` meanwhile.
    eventually ready && passes
}

new_limit() {
    sed -i 's/requests: 2,/requests: 1,/' $policy/limits.yaml && systemctl reload limiterd.service
}
# Of a user who has not been there.
one_a_user() {
    user="x-user: $(date +%N)"
    [ "$(status_for 2 --header "$user")" = 200 ] && [ "$(status_for 2 --header "$user")" = 429 ]
}

# Whoever one_a_user was last.
still_denied() { [ "$(status_for 2 --header "$user")" = 429 ]; }

crash() {
    before=$(main_pid)
    kill -KILL "$before"
    eventually ready && [ "$(main_pid)" != "$before" ] && [ "$(property NRestarts)" -ge 1 ]
}

# One that does nothing any more is ended by the watchdog, and another takes its place.
hang() {
    mkdir -p /run/systemd/system/limiterd.service.d
    printf '[Service]\nWatchdogSec=5s\n' >/run/systemd/system/limiterd.service.d/watchdog.conf
    systemctl daemon-reload && systemctl restart limiterd.service || return 1
    before=$(main_pid)
    kill -STOP "$before"
    gone() { [ "$(main_pid)" != "$before" ] && ready; }
    eventually gone
}

first_boot() {
    check "systemd is up" eventually systemctl is-active basic.target
    check "install" install_package $payload/old.deb
    check "the version is the old one" is_version "$(cat $payload/old.version)"
    check "it runs as installed" eventually ready
    check "a manual page is there" test -s /usr/share/man/man1/limiterd.1.gz
    check "keys are nobody's to read" sh -c \
        '[ "$(stat --format "%a %U %G" /etc/limiterd)" = "750 root limiterd" ]'
    check "a policy of one's own" own_policy
    check "it is ready" eventually ready
    check "confined" confined
    check "the program is attached" attached
    check "a request passes" passes
    check "who is denied gets nothing" refused 66
    check "block" limiterd block 10.9.0.77 --for 1h
    check "who is blocked gets nothing" refused 77
    check "a reload of something wrong is refused" bad_reload
    check "a reload" new_limit
    check "the new limit holds" eventually one_a_user
    check "load" load_begins
    check "upgrade" install_package $payload/new.deb
    check "the version is the new one" is_version "$(cat $payload/new.version)"
    check "the new one is ready" eventually ready
    check "under load nobody was refused, nor let in" load_was_good 0
    check "the block is kept" refused 77
    check "a user over the limit still is" still_denied
    check "the block is known" sh -c 'limiterd blocked | grep -q 10.9.0.77'
    check "load again" load_begins
    check "restart" systemctl restart limiterd.service
    check "over a restart nobody was refused, nor let in" load_was_good 0
    check "and again" load_begins
    check "a crash" crash
    check "over a crash nobody was refused, nor let in" load_was_good 1
    check "a user over the limit is so after a crash" still_denied
    check "a daemon that hangs" hang
    echo second >$state/boot
    sync
    echo "VMREBOOT"
    systemctl reboot
}

second_boot() {
    check "after a reboot it is ready" eventually ready
    check "attached again" attached
    check "a request passes again" passes
    check "who is denied still gets nothing" refused 66
    check "remove" dpkg --remove limiterd
    check "it has ended" sh -c '[ "$(systemctl is-active limiterd.service)" != active ]'
    check "nothing is attached" detached
    check "nothing is pinned" test ! -e /sys/fs/bpf/limiterd
    check "the policy is kept" test -s $policy/limiterd.yaml
    check "install again" install_package $payload/new.deb
    check "with the policy of before" sh -c "cmp $payload/policy/limiterd.yaml $policy/limiterd.yaml"
    check "it is ready at once" eventually ready
    check "purge" dpkg --purge limiterd
    check "no file is left" sh -c \
        'test ! -e /etc/limiterd && test ! -e /var/lib/limiterd && test ! -e /sys/fs/bpf/limiterd'
    check "no user is left" sh -c '! getent passwd limiterd'
    check "nothing is attached any more" detached
    the_end
}

case $(cat $state/boot 2>/dev/null) in
second) second_boot ;;
*) first_boot ;;
esac
