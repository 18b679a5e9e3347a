package androidx.activity

import android.app.Activity
import androidx.lifecycle.ViewModel

open class ComponentActivity : Activity() {
    override val assets get() = TODO()
    override val applicationContext get() = TODO()
    override val contentResolver get() = TODO()
    override val filesDir get() = TODO()
    override val noBackupFilesDir get() = TODO()

    override fun getExternalFilesDir(type: String?) = TODO()

    override fun getSharedPreferences(name: String, mode: Int) = TODO()

    override fun onCreate(savedInstanceState: android.os.Bundle?): Unit = TODO()

    override fun onStop(): Unit = TODO()
}

fun ComponentActivity.enableEdgeToEdge(): Unit = TODO()

inline fun <reified VM : ViewModel> ComponentActivity.viewModels(): Lazy<VM> = TODO()
