#!/bin/sh
. ./one-instance.sh
folder=@FOLDER@
# What services say is for root and who reads logs; its lock would be anybody's to hold.
if [ ! -d "$folder" ]; then
    # Whole or not at all: whoever cuts the power in between has it made anew.
    new=${folder%/*}/.${folder##*/}.new
    rm -rf "$new"
    mkdir -p "${folder%/*}"
    mkdir -m 2750 "$new"
    chgrp adm "$new" || :
    mv -T "$new" "$folder"
fi
umask 027
exec s6-log n5 s1000000 T @FOLDER@
