#!/bin/sh
. ./one-instance.sh
folder=@FOLDER@
# What services say is for root and who reads logs; its lock would be anybody's to hold.
if [ ! -d "$folder" ]; then
    mkdir -p "${folder%/*}"
    mkdir -m 2750 "$folder"
    chgrp adm "$folder" || :
fi
umask 027
exec s6-log n5 s1000000 T @FOLDER@
