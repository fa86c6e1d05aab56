# Ends the shared test server when nobody has used it for a while.
#
# Arguments: the folder of the server, the path of pg_ctl, and the seconds it may be unused.
# Runs under the user who runs the server, in a session of its own. Descriptor 9 is the lock that
# says that a watchdog lives; it is kept from all other programs, which might outlive this one.

root=$1 pg_ctl=$2 idle=$3
data=$root/state/data
trap '' HUP INT

exec 9>>"$root/watchdog.lock"
flock -n 9 || exit 0

# Processes come and go between two looks, so the name of the last to join counts as well.
in_use() {
    [ "$(cat "$root/last-join" 9>&-)" != "$seen" ] ||
        ! flock -n -x "$root/users.lock" true 9>&-
}

# A server that has died may have left a state file, whose process id is some other program's by
# now. A living one removes the file a moment before its last process is gone; then there is nobody
# to kill, and an empty process id would mean ourselves.
stop_server() {
    flock -n -x "$data/server.lock" true 9>&- 8>&- && return
    "$pg_ctl" stop -D "$data/postgres" -m immediate -t 30 9>&- 8>&-
    flock -w 10 -x "$data/server.lock" true 9>&- 8>&- && return
    pid=$(head -n 1 "$data/postgres/postmaster.pid" 9>&- 8>&-)
    [ -n "$pid" ] || return
    "$pg_ctl" kill KILL "$pid" 9>&- 8>&-
    flock -w 10 -x "$data/server.lock" true 9>&- 8>&-
}

# A killed initdb may still be writing.
wipe() {
    for _ in 1 2 3 4 5; do
        rm -rf "$root/state" 9>&- 8>&- && return
        sleep 1 9>&- 8>&-
    done
}

seen= unused=0
while [ -e "$root/users.lock" ]; do
    sleep 1 9>&-
    if in_use; then
        seen=$(cat "$root/last-join" 9>&-) unused=0
        continue
    fi
    unused=$((unused + 1))
    [ "$unused" -ge "$idle" ] || continue

    # Whoever joins must hold this lock to begin with, so that now nobody can.
    exec 8>>"$root/start.lock"
    flock -x 8
    if ! in_use; then
        stop_server
        wipe
        # The next to start a server must not take this watchdog for a living one.
        exec 9>&-
        exit 0
    fi
    exec 8>&-
    unused=0
done
