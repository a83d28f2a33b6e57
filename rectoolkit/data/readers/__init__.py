"""Readers: one pipeline from files and frames to rows of interactions.

    text      bytes of a file -> UTF-8 text: compression, encoding, byte order mark, line ends
    words     text -> words: adjacency lists, pairs, ratings
    tables    text, parquet or a frame -> columns: csv, tsv, RecBole's .inter
    rows      columns -> checked rows: which column is which, ids, ratings, times, missing values

A file given by path (``dataset.path``, a card) takes text -> words and must hold integer ids (``read_pairs``). An
import takes all steps and any ids (``open_source``, ``rows.Cleaner``).
"""
