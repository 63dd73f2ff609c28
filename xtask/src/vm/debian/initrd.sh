#!/bin/sh
# Finds the disk, and hands over to the systemd on it.
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    insmod "$module" || echo "VMCHECK FAILED $module"
done
mount -t ext4 /dev/vda /disk || echo "VMCHECK FAILED the disk"
umount /proc /sys
mount -o move /dev /disk/dev
exec switch_root /disk /sbin/init
