"""The card of a small data set, as tests write and change it."""

CARD = """name = "mine"
description = "two users"
format = "adjacency"
source = "the shop's log"
[files]
train = "train.txt"
test = "test.txt"
[counts]
users = 2
items = 3
train = 3
test = 1
"""
