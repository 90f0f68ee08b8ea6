"""Files of data, .npz, that are not there, damaged, foreign or hostile."""

from bad_input.actions import BAD, fit_file, npz, npz_file
from bad_input.files import X, Y
from smx_lightning import InputError

# fmt: off
CASES = [
    ("npz without x", npz(x=None), InputError,
     "expected both x and y in bad.npz, found y; save them with numpy.savez(path, x=…, y=…)"),
    ("npz without y", npz(y=None), InputError,
     "expected both x and y in bad.npz, found x; save them with numpy.savez(path, x=…, y=…)"),
    ("npz with x_val, without y_val", npz(x_val=X), InputError,
     "expected both x_val and y_val in bad.npz, found x, y, x_val; save them with numpy.savez("),
    ("npz with y_test, without x_test", npz(y_test=Y), InputError,
     "expected both x_test and y_test in bad.npz, found x, y, y_test; save them with numpy.savez("),
    ("npz of pickled inputs", fit_file("bomb.npz"), BAD,
     "expected plain arrays in bomb.npz, got pickled objects in x, which could run code; save"),
    ("npz of pickled labels", npz_file("bomb_y.npz"), InputError,
     "expected plain arrays in bomb_y.npz, got pickled objects in y, which could run code; save"),
    ("missing npz", fit_file("absent.npz"), BAD,
     "expected a data file at absent.npz, found none; check the path"),
    ("npz that is a folder", npz_file("folder"), InputError,
     "expected a data file at folder, found none; check the path"),
    ("npz that is a text", fit_file("text.npz"), BAD,
     "expected an .npz file, got one that is no whole zip archive at text.npz; save it again with "
     "numpy.savez"),
    ("npz of random bytes", npz_file("random.npz"), InputError,
     "expected an .npz file, got one that is no whole zip archive at random.npz; save it"),
    ("npz that is empty", npz_file("empty.npz"), InputError,
     "expected an .npz file, got one that …at empty.npz; save it again"),
    ("npz cut short", npz_file("truncated.npz"), InputError,
     "expected an .npz file, got one that …at truncated.npz; save it"),
    ("npz that is an npy", npz_file("renamed.npz"), InputError,
     "expected an .npz file with x and y, got a single array in renamed.npz; save it with "
     "numpy.savez(path, x=…, y=…)"),
    ("npz with members that are no arrays", npz_file("members.npz"), InputError,
     "expected an .npz file, got one …at members.npz; save it again with numpy.savez"),
    ("npz with a password", npz_file("locked.npz"), InputError,
     "expected an .npz file, got one that numpy cannot read (…encrypted…) at locked.npz; save it"),
]
# fmt: on
