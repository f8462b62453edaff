r"""Cases of our own: kind, whether the answer is right, gold answer, answer. Every kind has answers that are right and answers that are near misses."""

# fmt: off
CASES: list[tuple[str, bool, str, str]] = [
    # integers
    ("integer", True, "5", "+5"), ("integer", True, "-5", "\u22125"), ("integer", True, "1000", "1,000"), ("integer", True, "1000", "1 000"),
    ("integer", True, "12345678", "12,345,678"), ("integer", True, "1000", "1{,}000"), ("integer", True, r"1,\!000", "1000"),
    ("integer", True, r"11,\! 111,\! 111,\! 100", "11111111100"), ("integer", True, "7", "007"), ("integer", True, "7", "7.0"),
    ("integer", True, "7", "7."), ("integer", True, "42", r"$42$"), ("integer", True, "42", r"\(42\)"), ("integer", True, "42", r"\boxed{42}"),
    ("integer", True, "42", r"\mathbf{42}"), ("integer", True, "42", r"\text{42}"), ("integer", True, "-3", "- 3"), ("integer", True, "8", "2^3"),
    ("integer", True, "8", r"2\cdot 4"), ("integer", True, "8", r"2 \times 4"), ("integer", True, "4", r"\frac{8}{2}"), ("integer", True, "4", "|-4|"),
    ("integer", True, "4", r"\left|-4\right|"), ("integer", True, "3", r"\lfloor 3.7 \rfloor"), ("integer", True, "4", r"\lceil 3.2 \rceil"),
    ("integer", True, "1000000", "10^6"), ("integer", True, "1000000", r"1\times10^6"), ("integer", True, "1024", "2**10"),
    ("integer", True, "5000", r"5\,000"), ("integer", True, "5", r"5 \\"), ("integer", True, "10", r"\displaystyle 10"),
    ("integer", False, "1000000", "999999"), ("integer", False, "12345678902", "12345678901"), ("integer", False, "5", "-5"), ("integer", False, "5", "5.1"),
    ("integer", False, "1000", "1.000,5"), ("integer", False, "123", "1,2,3"), ("integer", False, "123", "(1,23)"), ("integer", False, "1234", "(1,234)"),
    ("integer", False, "6", "5 or 6"), ("integer", False, "6", r"5 \text{ or } 6"), ("integer", False, "6", "5, 6"), ("integer", False, "2", r"\pm 2"),
    ("integer", False, "7", r"\{0,1,2,3,4,5,6,7,8,9\}"), ("integer", False, "5", "x"), ("integer", False, "5", r"\ldots"), ("integer", False, "5", "?"),
    ("integer", False, "5", r"(-\infty,\infty)"), ("integer", False, "0", r"n^2-n=0"), ("integer", False, "0", r"\frac{0}{0}"),
    ("integer", False, "0", r"\infty-\infty"), ("integer", False, "100", "10^3"), ("integer", False, "12", "1 2"),
    # fractions
    ("fraction", True, r"\frac{1}{2}", "1/2"), ("fraction", True, r"\frac{1}{2}", "0.5"), ("fraction", True, r"\frac{1}{2}", r"\dfrac{1}{2}"),
    ("fraction", True, r"\frac{1}{2}", r"\tfrac12"), ("fraction", True, r"\frac12", r"\frac{2}{4}"), ("fraction", True, r"\frac{1}{2}", r"\frac 1 2"),
    ("fraction", True, r"-\frac{1}{2}", r"\frac{-1}{2}"), ("fraction", True, r"-\frac{1}{2}", r"\frac{1}{-2}"), ("fraction", True, r"-\frac{1}{2}", "-1/2"),
    ("fraction", True, r"\frac{1}{2}", r"{1 \over 2}"), ("fraction", True, r"\frac{3}{4}", r"3 \div 4"), ("fraction", True, r"\frac{1}{3}", r"0.\overline{3}"),
    ("fraction", True, r"\frac{1}{6}", r"0.1\overline{6}"), ("fraction", True, r"\frac{1}{3}", "0.3333333333333333"), ("fraction", True, r"\frac{1}{2}", "\u00bd"),
    ("fraction", True, r"\frac{1}{2}", r"\left(\frac{1}{2}\right)"), ("fraction", True, r"\frac{10}{3}", r"3\frac{1}{3}"), ("fraction", True, "2/(-3)", "-2/3"),
    ("fraction", True, r"\frac{1}{2}", r"2^{-1}"), ("fraction", True, r"\frac{1}{1000}", "10^{-3}"), ("fraction", True, r"\frac43", r"\frac{4}{3}"),
    ("fraction", True, r"\frac{22}{7}", r"22/7"), ("fraction", True, r"\frac{1{,}000}{3}", r"\frac{1000}{3}"),
    ("fraction", False, r"\frac{1}{3}", "0.33"), ("fraction", False, r"\frac{1}{3}", "0.333"), ("fraction", False, r"\frac{1}{2}", r"\frac{2}{1}"),
    ("fraction", False, r"\frac{1}{2}", r"-\frac{1}{2}"), ("fraction", False, r"\frac{22}{7}", r"\pi"), ("fraction", False, r"\frac{14}{169}", r"\frac{1}{13}"),
    ("fraction", False, r"\frac{1}{2}", r"1\frac{1}{2}"), ("fraction", False, r"\frac{1}{2}", "1,2"), ("fraction", False, r"\frac{3}{4}", "(3,4)"),
    # decimals
    ("decimal", True, "0.5", ".5"), ("decimal", True, "0.50", "0.5"), ("decimal", True, "-.5", "-1/2"), ("decimal", True, "1234.5", "1,234.5"),
    ("decimal", True, "7.78", r"\frac{70}{9}"), ("decimal", True, "7.78", "7.777777777778"), ("decimal", True, "0.3", "0.30000000000000004"),
    ("decimal", True, "1.4142135623730951", r"\sqrt{2}"), ("decimal", True, "0.0000672", r"6.72 \times 10^{-5}"), ("decimal", True, "0.0000672", "6.72e-5"),
    ("decimal", False, "0.5", "0.51"), ("decimal", False, "326.5", "326.53"), ("decimal", False, "1.234", "1,234"), ("decimal", False, "0.5", "50"),
    ("decimal", False, "0.5", r"\frac{8}{15}"), ("decimal", False, "80.64", "8064.0"), ("decimal", False, "1.25", "1.28"), ("decimal", False, "7.78", "7.77"),
    ("decimal", False, "3.14", r"3"), ("decimal", False, "7.78", r"\frac{71}{9}"),
    # mixed numbers
    ("mixed-number", True, r"\frac{3}{2}", r"1\frac12"), ("mixed-number", True, r"\frac{3}{2}", "1 1/2"), ("mixed-number", True, r"1\frac{4}{5}", "1.8"),
    ("mixed-number", True, r"137 \frac{1}{2}", r"\frac{275}{2}"), ("mixed-number", True, r"-\frac{3}{2}", r"-1\frac{1}{2}"), ("mixed-number", True, r"1\frac{4}{5}", r"1 + \frac{4}{5}"),
    ("mixed-number", False, r"1\frac{1}{2}", r"\frac{11}{2}"), ("mixed-number", False, r"1\frac{1}{2}", r"\frac{1}{2}"), ("mixed-number", False, r"2\frac{1}{3}", r"\frac{2}{3}"),
    # percent
    ("percent", True, r"10\%", "10"), ("percent", True, r"10\%", "0.1"), ("percent", True, "50", r"50\%"), ("percent", True, "0.5", r"50\%"),
    ("percent", True, r"10\%", "10 percent"), ("percent", True, r"12.5\%", r"\frac{1}{8}"), ("percent", True, r"62.5%", r"62.5\%"), ("percent", True, r"33\frac{1}{3}\%", r"\frac{1}{3}"),
    ("percent", False, r"10\%", "1"), ("percent", False, "50", "0.5"), ("percent", False, "0.5", "50"), ("percent", False, r"10\%", r"0.1\%"), ("percent", False, r"25\%", "22.22"),
    # scientific notation
    ("scientific", True, "150000000", r"1.5 \times 10^8"), ("scientific", True, r"1.5 \times 10^{8}", "1.5e8"), ("scientific", True, r"3 \cdot 10^{-4}", "0.0003"),
    ("scientific", False, r"1.5 \times 10^{8}", r"1.5 \times 10^{7}"), ("scientific", False, "1", "1E1000000000"), ("scientific", False, "1", r"1 \times 10^{999999999}"),
    # units and money
    ("units", True, "5", r"5\text{ cm}"), ("units", True, r"5\text{ cm}", "5"), ("units", True, r"5\text{ cm}", "5 cm"), ("units", True, "5", r"5\text{ m}^2"),
    ("units", True, r"15\mbox{ cm}^2", r"15 \text{ cm}^{2}"), ("units", True, r"864 \mbox{ inches}^2", "864"), ("units", True, "60", r"60\text{ km/h}"),
    ("units", True, "60", r"60 \frac{\text{km}}{\text{h}}"), ("units", True, "3", "3 units"), ("units", True, "12", "12 apples"), ("units", True, "12", r"12 \text{ square feet}"),
    ("units", True, r"5\text{ m}", r"500\text{ cm}"), ("units", True, r"2\text{ hours}", r"120\text{ minutes}"), ("units", True, "7", r"7\,\mathrm{kg}"), ("units", True, "7", r"$7$ miles"),
    ("units", True, r"144\mbox{m}^3", r"144 \text{ m}^3"), ("units", True, r"5.4 \text{ cents}", "5.4"), ("units", True, "10", r"10 \text{ miles per hour}"), ("units", True, r"\frac{600}{7}", r"\frac{600}{7}\text{ km/h}"),
    ("units", True, "12", r"12^{\mathrm{th}}"), ("units", True, "12", r"12^{\text{th}}"), ("units", True, "3", r"3\text{rd}"),
    ("units", False, r"5\text{ cm}", r"5\text{ m}"), ("units", False, r"5\text{ cm}", r"6\text{ cm}"), ("units", False, r"5\text{ m}", r"5\text{ m}^2"), ("units", False, r"5\text{ km}", r"5\text{ h}"),
    ("units", False, "60", r"61\text{ km/h}"), ("units", False, r"2\text{ hours}", r"2\text{ minutes}"),
    ("money", True, r"\$10", "10"), ("money", True, "10", r"\$10.00"), ("money", True, r"\$32,\!348", "32348"), ("money", True, r"\$18.90", "18.9"), ("money", True, "10", "10 dollars"), ("money", True, r"\$36", r"36\text{ dollars}"),
    ("money", False, r"\$10", r"\$11"), ("money", False, r"\$18.90", "18.09"), ("money", False, r"\$1", r"\$1,000"),
    # degrees
    ("degree", True, "45", r"45^\circ"), ("degree", True, r"45^\circ", "45"), ("degree", True, r"\frac{\pi}{4}", r"45^\circ"), ("degree", True, r"60^{\circ}", r"\frac{\pi}{3}"), ("degree", True, r"30^\circ", r"30\text{ degrees}"),
    ("degree", True, r"\frac{270}7\text{ degrees}", r"\frac{270}{7}^\circ"), ("degree", True, "90", r"\angle A = 90^\circ"), ("degree", True, r"120^\circ", "120\u00b0"), ("degree", True, r"18.8^{\circ}", "18.8"),
    ("degree", False, r"45^\circ", "46"), ("degree", False, r"\frac{\pi}{4}", r"90^\circ"), ("degree", False, r"30^\circ", r"150^\circ"),
    # surds, logarithms, trigonometry, constants
    ("surd", True, r"\sqrt{2}", r"\sqrt2"), ("surd", True, r"\sqrt{2}", "\u221a2"), ("surd", True, r"\sqrt{2}", "sqrt(2)"), ("surd", True, r"\sqrt{2}", "2^{1/2}"), ("surd", True, r"\sqrt{8}", r"2\sqrt{2}"),
    ("surd", True, r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"), ("surd", True, r"\sqrt[3]{16}", r"2\sqrt[3]{2}"), ("surd", True, r"\sqrt{5+2\sqrt{6}}", r"\sqrt{2}+\sqrt{3}"), ("surd", True, r"3\sqrt{13}", "3 sqrt(13)"),
    ("surd", True, r"\frac{3\sqrt{5}}{7}", "(3*sqrt(5))/7"), ("surd", True, r"6\sqrt{2}-2", r"-2+6\sqrt{2}"), ("surd", True, r"\sqrt{2}", "1.4142135623730951"), ("surd", True, "-2", r"\sqrt[3]{-8}"), ("surd", True, r"\sqrt{10}", r"\sqrt10"),
    ("surd", True, "4", r"8^{2/3}"), ("surd", True, r"\frac{2+\sqrt 3}{2}", r"1+\frac{\sqrt{3}}{2}"), ("surd", True, r"\frac{8}{\sqrt[3]{7}}", r"\frac{8\sqrt[3]{49}}{7}"),
    ("surd", False, r"\sqrt{2}", "1.41"), ("surd", False, r"\sqrt{2}", r"-\sqrt{2}"), ("surd", False, r"\sqrt{2}+\sqrt{3}", r"\sqrt{5}"), ("surd", False, r"\sqrt[3]{2}", r"3\sqrt{2}"), ("surd", False, r"\frac{\sqrt{7}}{12}", r"\sqrt{\frac{7}{12}}"),
    ("surd", False, r"2\sqrt{3}", r"3\sqrt{2}"), ("surd", False, r"10\sqrt{2}", "14.14"),
    ("log", True, "3", r"\log_2 8"), ("log", True, "3", r"\log_{2}{8}"), ("log", True, r"\ln 8", r"3\ln 2"), ("log", True, r"\log_2 3", r"\frac{\ln 3}{\ln 2}"), ("log", True, "2", r"\log 100"), ("log", True, r"\frac{\log 2}{\log 2-\log 3}", r"\frac{\ln 2}{\ln 2 - \ln 3}"),
    ("log", True, "2", r"\ln(e^2)"), ("log", True, r"\lg 2", r"\log_{10} 2"), ("log", True, r"\ln\frac{1}{2}", r"-\ln 2"), ("log", False, r"\ln 2", r"\log_{10} 2"), ("log", False, r"\log_2 3", r"\log_3 2"), ("log", False, r"\ln 2", "0.693"),
    ("trig", True, r"\frac{1}{2}", r"\sin 30^\circ"), ("trig", True, r"\frac{\sqrt{3}}{2}", r"\cos\frac{\pi}{6}"), ("trig", True, r"\cot x", r"\frac{\cos x}{\sin x}"), ("trig", True, r"\sin 2x", r"2 \sin x \cos x"), ("trig", True, r"1", r"\sin^2 x + \cos^2 x"),
    ("trig", True, r"\arctan x", r"\tan^{-1} x"), ("trig", True, r"\tan^2 \theta", r"\sec^2\theta - 1"), ("trig", True, r"\arcsin\frac12", r"\frac{\pi}{6}"), ("trig", True, r"\sin(x)^2", r"\sin^2(x)"),
    ("trig", False, r"\sin 2x", r"2 \sin x"), ("trig", False, r"\cot x", r"\tan x"), ("trig", False, r"\sin^2 x", r"\sin x^2"), ("trig", False, r"\cos x", r"\sin x"),
    ("constant", True, r"12\pi", r"\pi \cdot 12"), ("constant", True, r"12\pi", "12pi"), ("constant", True, r"2e", r"2 \mathrm{e}"), ("constant", True, "e", r"e^1"), ("constant", True, r"4 \pi^{2}-1", r"(2\pi-1)(2\pi+1)"),
    ("constant", False, r"12\pi", "12"), ("constant", False, r"12\pi", r"12\phi"), ("constant", False, r"\pi", "3.14"), ("constant", False, r"\pi", "3.1416"), ("constant", False, r"e^2", "7.389"), ("constant", False, r"\infty", r"-\infty"),
    # complex numbers
    ("complex", True, "1+2i", "2i+1"), ("complex", True, "-1", "i^2"), ("complex", True, "-1", r"e^{i\pi}"), ("complex", True, r"\frac{i}{5}", r"\frac{1}{5}i"), ("complex", True, "6-5i", r"z = 6 - 5i"), ("complex", True, "1+2i", r"\frac{5}{1-2i}"), ("complex", True, r"\frac{1+i\sqrt{3}}{2}", r"\frac12 + \frac{\sqrt3}{2}i"),
    ("complex", True, r"2i", r"\sqrt{-4}"), ("complex", False, "1+2i", "1-2i"), ("complex", False, "1+2i", "2+i"), ("complex", False, "1+274i", "i"), ("complex", False, "2i", "2"),
    # factorials, binomials, big numbers
    ("factorial", True, "120", "5!"), ("factorial", True, "10", r"\binom{5}{2}"), ("factorial", True, "10", r"{5 \choose 2}"), ("factorial", True, r"\binom{5}{2}", r"\binom{5}{3}"), ("factorial", True, r"\frac{n!}{(n-1)!}", "n"), ("factorial", True, "100!", r"100 \cdot 99!"),
    ("factorial", True, r"\binom{n}{2}", r"\frac{n(n-1)}{2}"), ("factorial", True, r"\binom{2026}{1013}", r"\frac{2026!}{1013!^2}"), ("factorial", False, "100!", "100!+1"), ("factorial", False, "1", "1000000!"), ("factorial", False, "5!", "5"), ("factorial", False, "1", "((9!)!)!"),
    ("big", True, "7^{1000000}", "7^{1000000}"), ("big", True, "2^{2009}", r"2 \cdot 2^{2008}"), ("big", True, "10^{10^{10^{10}}}", "10^{10^{10^{10}}}"), ("big", True, "2^{1009}", r"4^{504} \cdot 2"), ("big", False, "7^{1000000}", "7^{1000000}+1"), ("big", False, "10^{10^{10^{10}}}", "10^{10^{10^{10}}}+1"),
    ("big", False, "1", "2^{100000000}"), ("big", False, r"\frac{1}{2004!}", r"\frac{1}{2006!}"), ("big", False, r"\frac{2^{2009}-1}{3\cdot 2^{2008}-1}", r"\frac{2^{2008}-1}{3\cdot 2^{2007}-1}"),
    # expressions
    ("expression", True, "x^2+2x+1", "(x+1)^2"), ("expression", True, "ab", "ba"), ("expression", True, "2x", r"2 \cdot x"), ("expression", True, "2x", "x+x"), ("expression", True, "-13x+3", "3 - 13x"), ("expression", True, "6r^2-4r-24", "6r^{2} - 4r - 24"), ("expression", True, "2x+1", "y=2x+1"), ("expression", True, "x^{10}", "x^10"),
    ("expression", True, r"\frac{x+1}{2}", "0.5x+0.5"), ("expression", True, r"\frac{11+9a}{20}", r"\frac{9a}{20}+\frac{11}{20}"), ("expression", True, r"\frac{1-p^{2}}{3}", r"\frac{-p^2+1}{3}"), ("expression", True, "2^{n+1}", r"2\cdot 2^n"), ("expression", True, "e^{x+1}", r"e \cdot e^x"), ("expression", True, r"\sqrt{x^2+1}", r"(x^2+1)^{\frac{1}{2}}"),
    ("expression", True, "(x+1)^{5000}", "(1+x)^{5000}"), ("expression", True, r"\frac{x^2-1}{x-1}", "x+1"), ("expression", True, r"|x-1|", "|1-x|"), ("expression", True, "2k", "a+b+c=2k"), ("expression", True, r"x_1 + x_2", r"x_{2}+x_{1}"), ("expression", True, r"\frac{a}{b}", "a/b"), ("expression", True, "(a+5)(b+2)", "(b+2)(a+5)"),
    ("expression", True, "n(n+1)/2", r"\frac{n^2+n}{2}"), ("expression", True, r"\frac{\pi r}{h+r}", r"\frac{r\pi}{r+h}"), ("expression", True, r"-(n-1)/2", r"\frac{1-n}{2}"), ("expression", True, r"15x - 80", r"5(3x-16)"), ("expression", True, "1-\\frac{1}{\\mathrm{e}}", "1-e^{-1}"),
    ("expression", True, r"a\sqrt{b}", r"\sqrt{a^2 b}"), ("expression", False, "x^2+2x+1", "y^2+2y+1"), ("expression", False, "x^2+2x+1", "x^2+2x"), ("expression", False, "2x", "x^2"), ("expression", False, "(a+5)(b+2)", "(a+2)(b+5)"), ("expression", False, "x", "|x|"), ("expression", False, "ab", "a+b"), ("expression", False, r"\alpha", "a"), ("expression", False, "x+2n+1", "x+1"), ("expression", False, "p-q", "q-p"),
    ("expression", False, "2k", "2k+1"), ("expression", False, "a", r"(a_{0}+b_{0})(a_{1}+b_{1})(a_{2}+b_{2})"), ("expression", False, "x_1", "x_2"), ("expression", False, "3R^2", "3r^3"),
    # sums
    ("sum", True, "55", r"\sum_{k=1}^{10} k"), ("sum", True, "500000000500000000", r"\sum_{k=1}^{1000000000} k"), ("sum", True, "120", r"\prod_{k=1}^{5} k"), ("sum", True, r"\frac{n(n+1)}{2}", r"\sum_{k=1}^{n} k"), ("sum", True, r"\frac{\pi^2}{6}", r"\sum_{n=1}^{\infty} \frac{1}{n^2}"),
    ("sum", True, r"\frac13", r"\int_0^1 x^2 dx"), ("sum", True, "1", r"\lim_{x \to 0} \frac{\sin x}{x}"), ("sum", False, "54", r"\sum_{k=1}^{10} k"), ("sum", False, r"\frac12", r"\int_0^1 x^2 dx"), ("sum", False, "0", r"\lim_{x \to 0} \frac{\sin x}{x}"),
    # equations
    ("equation", True, "x=5", "5"), ("equation", True, "5", "x=5"), ("equation", True, "x=5", "x = 5.0"), ("equation", True, "5", "5 = x"), ("equation", True, "y=2x+1", "2x+1"), ("equation", True, "y=2x+1", "y = 1 + 2x"), ("equation", True, "x^2+y^2=1", "1 = y^2+x^2"), ("equation", True, "34x+45y-20z+100=0", "-34x-45y+20z-100=0"),
    ("equation", True, "f(x)=2x", "f(t)=2t"), ("equation", True, "f(x)=2x", "2x"), ("equation", True, r"x^2=4y", r"\frac{x^2}{4}=y"), ("equation", True, "y = -2x", "y=-2x."), ("equation", True, r"\frac{x^2}{4}+\frac{y^2}{9}=1", "9x^2+4y^2=36"), ("equation", True, "f(x)=1", r"f(x) = 1 \text{ for all } x"), ("equation", True, "10", "a+b+c=10"), ("equation", True, "k=n+1", "n+1"),
    ("equation", True, "12", "3 \\cdot 4 = 12"), ("equation", True, r"\frac{\sqrt{3}}{3} \approx 0.577", r"\frac{1}{\sqrt{3}}"), ("equation", True, "25", "x^2+y^2=25"), ("equation", True, r"\frac12", r"P(A)=\frac12"), ("equation", True, r"a_n = 2n+1", r"2n+1"), ("equation", True, r"M=\frac{9}{32} \sqrt{2}", r"\frac{9\sqrt2}{32}"),
    ("equation", False, "x=5", "x=6"), ("equation", False, "5", "x=6"), ("equation", False, "x=5", "y=5"), ("equation", False, "f(x)=2x", "f(x)=x"), ("equation", False, "7 = 11a+c", "11a+c"), ("equation", False, "x^2+y^2=1", "x^2-y^2=1"), ("equation", False, "7", "2x+3=7"), ("equation", False, "5x-7y+11z+4=0", "5x-7y+11z-4=0"), ("equation", False, "y=2x+1", "y=2x"),
    ("equation", False, r"\rho\sin\theta = \sqrt{3}", r"\sqrt{3} \sin \theta"), ("equation", False, "0", "x^2-5x+6=0"),
    # inequalities and intervals
    ("inequality", True, "x>2", r"(2,\infty)"), ("inequality", True, r"(2,\infty)", "x>2"), ("inequality", True, r"[0,\infty)", r"x\ge 0"), ("inequality", True, "(0,1)", "0<x<1"), ("inequality", True, "x<1", "-x>-1"), ("inequality", True, "2>x", "x<2"), ("inequality", True, r"x \leq 2", "x <= 2"), ("inequality", True, r"x \neq 5", "x != 5"),
    ("inequality", True, r"x \ne 5", r"(-\infty,5)\cup(5,\infty)"), ("inequality", True, r"1\leq|z|\leq \frac{3}{2}", r"z \in \left[-\frac{3}{2}, -1\right] \cup \left[1, \frac{3}{2}\right]"), ("inequality", True, "x^2<4", "(-2,2)"), ("inequality", True, "|x|<3", "-3<x<3"), ("inequality", True, r"-2 \le x \le 7", r"x \in [-2,7]"),
    ("inequality", True, r"a \leqslant -2 \text{ or } a = 1", r"(-\infty, -2] \cup \{1\}"), ("inequality", True, r"x<-1 \text{ or } x>1", r"(-\infty,-1)\cup(1,\infty)"), ("inequality", True, r"\{x \mid 2 < x < 3\}", "(2,3)"), ("inequality", True, "a<b", "b>a"), ("inequality", True, "2x+4>0", "x>-2"), ("inequality", True, r"m \ge \sqrt{2}", r"[\sqrt2, +\infty)"),
    ("inequality", False, "x>2", "x<2"), ("inequality", False, "x>2", r"x\ge2"), ("inequality", False, "(0,1)", r"0\le x<1"), ("inequality", False, r"[0,\infty)", "x>0"), ("inequality", False, "x<1", "x>-1"), ("inequality", False, "a<b", "a>b"), ("inequality", False, "x>2", "2"), ("inequality", False, r"x \neq 5", "5"), ("inequality", False, "b < a < d < c", "a < b < c < d"),
    ("interval", True, r"[1,2]", r"\left[1,2\right]"), ("interval", True, "(3,4]", r"3 < \lambda \leq 4"), ("interval", True, r"(1,2)\cup(3,4)", r"(3,4)\cup(1,2)"), ("interval", True, r"(-\infty,\infty)", r"\mathbb{R}"), ("interval", True, r"\mathbb{R}", "all real numbers"), ("interval", True, r"[-4/2, 0.5]", r"[-2, \frac{1}{2}]"), ("interval", True, "(1,3)", r"(1,2]\cup(2,3)"),
    ("interval", True, r"(-\infty,-3)\cup(3,\infty)", r"(-\infty, -3) \cup (3, +\infty)"), ("interval", True, r"[0,9)", r"x \in [0,9)"), ("interval", True, r"\left(\frac{3}{5},\frac{8}{3}\right]", r"(0.6, \frac{8}{3}]"), ("interval", True, r"(2,12) \cup (12,102)", r"(12,102)\cup(2,12)"),
    ("interval", False, "[0,1)", "[0,1]"), ("interval", False, "(0,1)", "[0,1]"), ("interval", False, r"[0,\infty)", r"(0,\infty)"), ("interval", False, "[1,2]", r"\{1,2\}"), ("interval", False, "(3,4]", "(3,4)"), ("interval", False, r"(1,2)\cup(3,4)", "(1,4)"), ("interval", False, "(1,2]", "1,2"), ("interval", False, r"(2,\infty)", "the set of all positive real numbers"),
    # sets, lists, tuples
    ("set", True, r"\{1,2,3\}", r"\{3,1,2\}"), ("set", True, r"\{1,2,3\}", "1,2,3"), ("set", True, r"\{1,2\}", r"\{1,2,2\}"), ("set", True, r"\emptyset", r"\varnothing"), ("set", True, r"\emptyset", r"\{\}"), ("set", True, r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1+\sqrt5, 1-\sqrt5\}"), ("set", True, "{1,2,3}", r"\{1,2,3\}"), ("set", True, r"\{5\}", "5"),
    ("set", False, r"\{1,2,3\}", r"\{1,2\}"), ("set", False, r"\{1,2\}", "(1,2)"), ("set", False, r"\{1,2,3\}", r"\{1,2,4\}"), ("set", False, r"\{1,2\}", "1"),
    ("list", True, "1,2", "2, 1"), ("list", True, "1,2", r"1 \text{ and } 2"), ("list", True, "1,2", "x=1 or x=2"), ("list", True, "1,2", r"x_1=1, x_2=2"), ("list", True, "1,-2", r"\{-2,1\}"), ("list", True, "3, 5, 7", "3, 5, and 7"), ("list", True, r"\frac{1}{2},\frac{3}{4}", "0.75, 0.5"), ("list", True, "AB=4,CD=5", "4, 5"), ("list", True, r"x = 1 \text{ or } x=2", "1,2"),
    ("list", True, "100,200", "100, 200"), ("list", True, r"x=-1, x=\frac{15}{8}", r"-1, \frac{15}{8}"), ("list", True, "a=4,b=5", "b=5, a=4"), ("list", False, "1,2", "1"), ("list", False, "1,2", "1,3"), ("list", False, "1,2", "1,2,3"), ("list", False, "3, 5, 7", "3, 5"), ("list", False, "1,2", "12"), ("list", False, "1,1,2", "1,2,2"),
    ("tuple", True, "(1,2)", r"\left(1,2\right)"), ("tuple", True, "(1,2)", r"(x,y)=(1,2)"), ("tuple", True, "(1,2)", "x=1,y=2"), ("tuple", True, r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"), ("tuple", True, "(3,2,7)", "(p,q,r)=(3,2,7)"), ("tuple", True, "(1,2),(3,4)", "(3,4), (1,2)"), ("tuple", True, r"(\frac12, 3)", "(0.5, 3)"), ("tuple", True, "(0;0;1)", "(0,0,1)"),
    ("tuple", True, r"\langle 1,2,3\rangle", "(1,2,3)"), ("tuple", True, "A(1,2)", "(1,2)"), ("tuple", False, "(1,2)", "(2,1)"), ("tuple", False, "(1,2)", "(1,2,3)"), ("tuple", False, "(1,2)", "[1,2]"), ("tuple", False, "(1,2)", r"\{1,2\}"), ("tuple", False, "(312,123,231)", "(312,123,213)"), ("tuple", False, "(1,2),(3,4)", "(1,2)"), ("tuple", False, "(-3,2)", "[-3,2]"), ("tuple", False, "(1,2)", "2,1"),
    # matrices
    ("matrix", True, r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"), ("matrix", True, r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]"), ("matrix", True, r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}", r"\begin{pmatrix} 0.2 \\ -3.6 \end{pmatrix}"), ("matrix", True, r"\begin{pmatrix}-7\\16\\5\end{pmatrix}", "(-7,16,5)"),
    ("matrix", True, r"\begin{pmatrix}4&6\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}+\begin{pmatrix}3&4\end{pmatrix}"), ("matrix", True, r"\begin{pmatrix}2&4\end{pmatrix}", r"2\begin{pmatrix}1&2\end{pmatrix}"), ("matrix", True, r"\begin{pmatrix} 16/49 \\ 48/49 \end{pmatrix}", r"\frac{1}{49}\begin{pmatrix} 16 \\ 48 \end{pmatrix}"), ("matrix", True, "-2", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}"),
    ("matrix", False, r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"), ("matrix", False, r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"), ("matrix", False, r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"), ("matrix", False, r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "-2"),
    # plus-minus
    ("plus-minus", True, r"\pm 2", "2,-2"), ("plus-minus", True, r"\pm 2", r"x=\pm 2"), ("plus-minus", True, r"1 \pm \sqrt{19}", r"1 + \sqrt{19}, 1 - \sqrt{19}"), ("plus-minus", True, r"\frac{1\pm\sqrt{5}}{2}", r"\frac{1-\sqrt5}{2}, \frac{1+\sqrt5}{2}"), ("plus-minus", True, r"0, \pm 1", "-1,0,1"), ("plus-minus", True, r"3 \pm 2 \sqrt{2}", r"x = 3 \pm \sqrt{8}"),
    ("plus-minus", False, r"\pm 2", "2"), ("plus-minus", False, "2", r"\pm 2"), ("plus-minus", False, r"1 \pm \sqrt{19}", r"1 + \sqrt{19}"), ("plus-minus", False, r"1 \pm \sqrt{19}", r"1 \pm \sqrt{9}"), ("plus-minus", False, "1", r"\pm 1 + \pm 2 + \pm 3"),
    # numerals in other bases, ratios, times
    ("base", True, "101_2", "101_{2}"), ("base", True, "101_2", r"101_{\text{two}}"), ("base", True, "2516_8", r"2516_{8}"), ("base", True, "4210_{5}", r"(4210)_5"), ("base", False, "101_2", "101_3"), ("base", False, "4210_5", "555_{10}"), ("base", False, "204_5", "206_5"), ("base", False, "101_2", "5"), ("base", False, "101_2", "110_2"),
    ("ratio", True, "3:1", "3"), ("ratio", True, "5:8", r"\dfrac{5}{8}"), ("ratio", True, "1:2", "2:4"), ("ratio", True, "1:2:3", "2:4:6"), ("ratio", False, "5:8", "8:5"), ("ratio", False, "1:2:3", "3:2:1"), ("ratio", False, "3:1", "2"),
    ("time", True, "12:00", "12:00"), ("time", True, r"\text{4:30 p.m.}", r"4:30 \text{ p.m.}"), ("time", True, r"\text{4:30 p.m.}", "4:30 PM"), ("time", True, "4:30", r"4:30 \text{ p.m.}"), ("time", False, "12:00", "1:00"), ("time", False, "4:30 p.m.", "4:30 a.m."), ("time", False, "4:30", "4:15"),
    # words and letters
    ("text", True, r"\text{even}", "even"), ("text", True, r"\text{east}", "East"), ("text", True, r"\text{Evelyn}", r"\textbf{Evelyn}"), ("text", True, r"\text{even}", '"even"'), ("text", True, "ellipse", "an ellipse"), ("text", True, r"\text{no solution}", "No solution."), ("text", True, "Yes", "yes"), ("text", True, r"\text{Tuesday}", "Tuesday"),
    ("text", False, r"\text{even}", r"\text{odd}"), ("text", False, r"\text{east}", "northeast"), ("text", False, r"\text{Navin}", "Luka and Ian"), ("text", False, r"\text{ellipse}", "circle"), ("text", False, "yes", "no"), ("text", False, r"\text{even}", "2"), ("text", False, "5", r"\text{None}"), ("text", False, "5", r"\text{nan}"),
    ("mcq", True, "B", "(B)"), ("mcq", True, r"\text{(B)}", "B"), ("mcq", True, r"\text{E}", "E"), ("mcq", True, "B", r"\textbf{B}"), ("mcq", True, "B", r"\textbf{(B)}"), ("mcq", True, "B", "B."), ("mcq", True, "B", "(B) 12"), ("mcq", True, "C", r"\text{C}"), ("mcq", True, r"\text{C}", r"\text{(C)}"), ("mcq", True, "B", r"\textbf{(B)}\ 12"),
    ("mcq", False, "B", "C"), ("mcq", False, "B", "A, B, C, D"), ("mcq", False, "B", "(A) 12"), ("mcq", False, r"\text{(B)}", "1"), ("mcq", False, "B", "A or B"), ("mcq", False, "A", "an apple"),
    # multi-part answers
    ("multi-part", True, "p=5,q=2;p=7,q=2", "(5,2),(7,2)"), ("multi-part", True, "(a,b)=(1,2)", "a=1, b=2"), ("multi-part", True, "f(x)=x, f(x)=-x", r"f(x) = x \text{ and } f(x) = -x"), ("multi-part", True, "a=2, b=3, c=4", "(2,3,4)"), ("multi-part", False, "a=1,b=2", "a=2,b=1"), ("multi-part", False, "p=5,q=2;p=7,q=2", "(5,2),(7,3)"),
    # code for other people's graders
    ("code", False, "1", r"\frac{__import__('os').system('true')}{1}"), ("code", False, "1", "().__class__.__base__.__subclasses__()"), ("code", False, "0", "(lambda: open('x','w'))() or 0"), ("code", False, "1", "N(__import__('os'))"), ("code", False, "2", "exec('x')"),
]
# fmt: on
