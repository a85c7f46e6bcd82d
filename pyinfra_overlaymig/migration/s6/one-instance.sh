# Where s6-supervise itself was killed, what it had started still runs: that ends first, or there would be two.
begun() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
runs() { [ "$(begun "$old")" = "$since" ]; }
if read -r old since 2>/dev/null <group && [ -n "$since" ] && runs; then
    echo "@NAME@: its process $old of before still runs, and ends first"
    kill -s @SIGNAL@ -- "@WHOM@$old" || :
    tries=@TRIES@
    while runs && [ "$tries" -gt 0 ]; do
        tries=$((tries - 1))
        sleep 0.1
    done
    if runs; then kill -s KILL -- "-$old" || :; fi
fi
echo "$$ $(begun "$$")" >group
