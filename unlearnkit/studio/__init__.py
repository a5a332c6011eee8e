"""The studio: a local web page that starts the commands, shows what they do, and draws before and after.

It is bound to loopback, answers only under a random address, and reads only below the folder that it was opened on.
Every job is the command of the same name in a process of its own; one more process draws pictures.
"""
