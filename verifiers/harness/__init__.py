"""What runs inside the sandbox to judge a program by its tests: standard library only, Python 3.10 or newer, sent as source text.

solution    runs the program to be judged and makes calls; sees arguments, never tests or expected values
examiner    runs the tests in a process of its own, as another user; calls go over a socket
remote      what tests hold in place of the solution's functions, classes and objects
values      plain data over that socket; nothing a solution sends is ever executed
comparison  when a result counts as the expected one; used outside the sandbox
"""
