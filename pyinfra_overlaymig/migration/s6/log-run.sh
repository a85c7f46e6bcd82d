#!/bin/sh
. ./one-instance.sh
mkdir -p @FOLDER@
exec s6-log n5 s1000000 T @FOLDER@
