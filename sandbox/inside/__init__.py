"""What runs inside a container: standard library only, Python 3.10 or newer, sent over standard input when the container starts.

boot     reads the other modules and starts them; the whole command line of the container
runner   process 1: takes jobs from the host, runs them, kills and cleans up, answers
zygote   imports once and forks a process for each program of a job; never sees what they are given
child    what a forked process does before and after the program's own code
job      one job: its programs, their streams, the answer
remains  what a job may leave behind, and how it goes
wire     the frames all of them speak
"""
