"""What a user's pictures and captions come as, and what is made of them: a `PairSet`, or a stream.

`source.load_split` and `source.load_training` are the way in, whatever the data come as. `pairs` holds the schema and
the sets in memory, `brought` other layouts (files in `folders`, names of `columns`), `shards` those that are streamed,
`rules` what is to be forgotten, `sampling` which rows a step draws. Nothing is imported here, because `datasets`
and `webdataset` take seconds.
"""
