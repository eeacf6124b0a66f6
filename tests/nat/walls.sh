# Runs a command as the units of deploy/systemd do, as far as that goes without systemd: as a user of its own, without privileges, on a file
# system that it cannot write but for its own directories, and with no more of /proc than its processes. In a mount namespace of its own.
set -e
root=$1 name=$2 user=$3 etc=$4 run=$5 state=$6 hosts=$7 binary=$8
shift 8
mount --bind / "$root"
mount -o remount,bind,ro "$root"
mount -t proc -o subset=pid,hidepid=invisible proc "$root/proc"
for dir in etc run tmp var/lib usr/local/bin; do mount -t tmpfs -o mode=0755 tmpfs "$root/$dir"; done
mkdir "$root/etc/receptor" "$root/run/receptor-$name" "$root/var/lib/receptor-$name"
mount --bind "$etc" "$root/etc/receptor"
mount -o remount,bind,ro "$root/etc/receptor"
mount --bind "$run" "$root/run/receptor-$name"
mount --bind "$state" "$root/var/lib/receptor-$name"
touch "$root/usr/local/bin/receptor"
mount --bind "$binary" "$root/usr/local/bin/receptor"
cp "$hosts" "$root/etc/hosts"
echo 'hosts: files' >"$root/etc/nsswitch.conf"
for dir in etc run var/lib usr/local/bin; do mount -o remount,bind,ro "$root/$dir"; done
umask 0077
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
