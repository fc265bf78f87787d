// Nothing to call: linking this target is enough. See mutex_annotations.c.
