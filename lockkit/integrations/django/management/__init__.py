"""Commands of ``manage.py`` that lockkit adds, in the place where Django looks for them."""
