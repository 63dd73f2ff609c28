#!/bin/sh
# Plays the blocks of docs/desk.md one after the other, and looks at what came of each. Run by systemd.
. /opt/vm/lib.sh
said=/tmp/said
mkdir -p $said
exec 3>&1
cd /root || exit 1

# What a block wrote, told to the console as well.
tell() { sed "s/^/VMSAID $1: /" $said/"$1" >&3; }

# The block $1, as root on this machine.
play() {
    sh -eu $payload/desk/"$1".sh >$said/"$1" 2>&1
    code=$?
    tell "$1"
    return $code
}

# The block $2 on the machine $1, until it ends.
on() {
    ip netns exec "$1" sh -eu $payload/desk/"$2".sh >$said/"$2" 2>&1
    code=$?
    tell "$2"
    return $code
}

# The same with $1 not waited for: a process group of its own, whose id is in $begun. An attacker's
# machine has processors of its own; here it gets a quarter of one.
begin() {
    case $3 in
    attack) setsid systemd-run --quiet --scope --property CPUQuota=25% "$0" on "$2" "$3" & ;;
    *) setsid "$0" on "$2" "$3" & ;;
    esac
    begun=$!
}

wrote() {
    block=$1
    shift
    grep -q "$@" $said/"$block"
}

# What follows makes no sense without it.
must() {
    check "$@"
    [ "$failed" = 0 ] && return
    the_end
    exit 1
}

# The line $2 of what the block $1 wrote is $3.
line() { [ "$(sed -n "$2p" $said/"$1")" = "$3" ]; }

metric() { curl --silent http://127.0.0.1:9901/metrics | grep "^$1" | grep -v '^#' | sed 's/.* //'; }
positive() { awk -v value="$1" 'BEGIN { exit !(value + 0 > 0) }'; }
limited() { positive "$(limiterd top --once --json | jq '.limits[0].limited')"; }
dropped() { positive "$(limiterd top --once --json | jq '.kernel[0].dropped')"; }
attached() { ip link show eth0 | grep -q 'prog/xdp'; }

# So many tokens a second come back into each client's bucket.
refilled() {
    awk -v is="$(metric 'limiterd_rate_limit_tokens_per_second{.*candidate=""')" -v wanted="$1" \
        'BEGIN { exit !(is > wanted - 0.01 && is < wanted + 0.01) }'
}

# What the client got after its first answer, which is whole.
statuses() { grep -x '[0-9][0-9][0-9]' $said/client; }
answers() { statuses | grep -c .; }
some_more() {
    before=$(answers)
    more() { [ "$(answers)" -ge $((before + 3)) ]; }
    eventually more
}
all_well() {
    statuses | sort | uniq -c
    statuses | grep -qx 200 && ! statuses | grep -qvx 200
}
served() { some_more && all_well; }

found() {
    play find && line find "$(grep -c '' $said/find)" 10.9.0.66 &&
        wrote find '"rule":"default/clients/rule/0"' && wrote find '"policy":"default/connections"' &&
        ! wrote find '"limited_per_second":0[,}]' && ! wrote find '"dropped":0,'
}
drawn() {
    play dashboard && wrote dashboard limiterd && wrote dashboard --line-regexp 10.9.0.66 &&
        wrote dashboard '[0-9] 10.9.0.66$' && ! wrote dashboard '10.9.0.2$'
}
tried() { play tried && wrote tried 'default/clients/rule/0 ~ tight'; }
simulated() {
    play simulate && line simulate "$(grep -c '' $said/simulate)" 10.9.0.66 &&
        wrote simulate 'limited only by next' && ! wrote simulate '10\.9\.0\.2,' && test -s report.html
}
# Rates are of ten seconds.
two_a_second() {
    play tightened || return 1
    rate=$(jq '.ok_per_second' $said/tightened)
    awk -v rate="$rate" 'BEGIN { exit !(rate > 0.5 && rate < 4) }'
}

if [ "$1" = on ]; then
    shift
    exec ip netns exec "$1" sh -eu $payload/desk/"$2".sh >$said/"$2" 2>&1
fi

for version in old new; do
    mkdir -p $version
    cp $payload/$version.deb "$version/limiterd_$(cat $payload/$version.version)_amd64.deb"
done
echo found >/var/www/html/search

must "systemd is up" eventually systemctl is-active basic.target
must "nginx serves" eventually on client before
must "by itself" wrote before --ignore-case '^server: nginx'
must "install" play install
must "it is ready" ready
must "the version is the old one" is_version "$(cat $payload/old.version)"
must "the kernel has what it needs" play probe
must "nothing is missing" sh -c "! grep -q MISSING $said/probe"
must "settings" play settings
must "a gateway" play gateway
must "limits" play limits
must "nginx is protected" play protect
must "it is ready in front of nginx" ready
must "the program is attached" attached
begin on client client
client=$begun
must "the client is told its limit" eventually wrote client --ignore-case '^x-ratelimit-limit: 600'
must "the client is served" served
begin on attacker attack
attack=$begun
must "the attack is on" eventually pgrep --full 'wrk -t1 -c10'
must "requests are limited" eventually limited
must "connections are dropped" eventually dropped
must "the offender is found" eventually found
must "the offender is in the dashboard and the log" drawn
must "a candidate" play candidate
must "the candidate is counted" eventually tried
must "the client is served under attack" served
must "simulated: only the offender is limited" simulated
must "tighten" play tighten
must "the limit is two a second" eventually refilled 2
must "two a second of the offender pass, and the client" eventually two_a_second
must "the client is served under the new limit" served
must "upgrade" play upgrade
must "the version is the new one" is_version "$(cat $payload/new.version)"
must "it is ready after the upgrade" ready
must "it is attached after the upgrade" attached
must "the limit is kept" eventually refilled 2
must "the offender is still limited" eventually limited
must "the client is served after the upgrade" served
must "roll back" play back
must "the version is the old one again" is_version "$(cat $payload/old.version)"
must "it is ready after the way back" ready
must "it is attached after the way back" attached
must "the limit is ten a second again" eventually refilled 10
must "the client is served at the end" served
# wrk tells what it saw.
/bin/kill -INT -- "-$attack"
wait "$attack"
tell attack
must "most of the attack was refused" wrote attack 'Non-2xx'
/bin/kill -TERM -- "-$client"
wait "$client"
must "no answer to the client was anything but 200" all_well
echo "VMSAID client: $(grep -c '^200$' $said/client) answers, all 200"
the_end
