"""The supervisor: starts the components of one data folder, restarts what dies, survives its own death.

`plan` says what to run as plain data; `processes` starts, adopts and stops one component; `supervise` is the loop;
`tenure` decides who supervises (the first, its standby twin, or a later `up`). Standard library only: this process
and its twin stay small.
"""
